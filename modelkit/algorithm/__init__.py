"""What an algorithm is handed and what it gives back."""
