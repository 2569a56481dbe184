"""A broker and a ClickHouse that need nothing but pip: for laptops, demos and CI."""
