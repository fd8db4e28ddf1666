"""What runs the service elsewhere, and what checks that it would."""
