"""The controlled evaluation: models whose spurious feature is known, so that every answer can be marked.

`settings`   which models are audited            `running`    one after the other or in processes; resumable
`auditing`   model, images, audit, truth         `provenance` by what code and machine
`discovery`  audits marked: `rivals` rank regions, `slices` list images, `figures` count what is right, `rows` keeps,
             `summary` adds up, `report` writes, `picture` draws
`mitigation` models repaired: `arms` are the ways, `measuring` tests, `repairs` keeps, `gains` adds up,
             `repair_report` writes and draws
`markdown`, `dotplot`  tables and plots of both  `command`    `ravl benchmark`; `demo` the demo's own table
"""
