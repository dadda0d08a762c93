"""How the database came to look as it does, step by step; `umbel.store.sql.schema` takes the steps."""
