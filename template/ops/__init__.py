"""What the Prefect server must hold for this project, and the command that makes it so: `python -m ops --help`.

You edit the declarations: `work_pools`, `limits`, `variables`, `blocks` and `automations`, in Prefect's own classes, beside
prefect.yaml; `environments`, what differs between them; `settings`, what comes from outside.
The engine: `declared` collects all that, `deployments` checks prefect.yaml, `kinds` reads and writes each kind of object,
`reconcile` plans and applies, `report` prints, `api` connects. Each other module is one command, such as `doctor`.
"""
