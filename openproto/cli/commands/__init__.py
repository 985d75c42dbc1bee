"""The command groups, a file each; `app.GROUPS` lists them."""
