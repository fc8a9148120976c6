"""Pure decisions: what manifests may say and what they mean together."""
