"""The project's flows. This folder is yours: template updates never touch it."""
