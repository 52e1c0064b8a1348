"""Object stores that exist already (S3 and its likes, GCS, Azure, web servers, directories), behind one contract."""
