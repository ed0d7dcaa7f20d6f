"""What things cost, side by side: `make bench`. Not a part of the product; docs/bench.md."""
