"""A trained pipeline applied to corpora of any size: records in, predictions out, in shards that survive a kill."""
