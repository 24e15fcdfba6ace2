"""What the Prefect server must hold for this project, and the command that makes it so.

Declarations, in Prefect's own classes: `work_pools`, `limits`, `variables`, `blocks`, `automations`;
the deployments are in `prefect.yaml`. `environments` says what differs between them, `settings`
lists what comes from outside. `reconcile` compares and applies; `python -m ops --help` is the command.
"""
