"""What can be trained: each recipe says where its data comes from and what its options are."""
