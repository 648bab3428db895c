"""Training and attacks on a Dask cluster, whose workers share a store."""
