"""The controlled evaluation: models whose spurious feature is known, so that every answer can be marked.

`settings`   which models are audited            `discovery` trains, audits, marks; resumable
`rivals`     methods that rank regions           `slices`    methods that list images
`figures`    right or wrong, counted             `rows`      what is kept of each setting and method
`summary`    rows added up, and the goals        `report`    tables and the README's numbers; `picture` draws them
`provenance` by what code and machine            `command`   `ravl benchmark`; `demo` the demo's own table
"""
