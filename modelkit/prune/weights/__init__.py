"""Single weights become zero: magnitude, wanda, optimal brain surgeon; one file per algorithm."""
