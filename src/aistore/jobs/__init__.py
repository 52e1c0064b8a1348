"""Jobs from bucket to bucket: copy and transform, owned by one node, worked off by all, surviving any of them."""
