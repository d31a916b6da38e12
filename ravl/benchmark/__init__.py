"""The controlled evaluation: models whose spurious feature is known, so that every answer can be marked.

`rivals` other methods on the same audit  `figures` right or wrong, counted  `settings` which models are audited
`discovery` trains, audits, marks  `report` tables, picture, README numbers  `demo` the demo's own table
"""
