"""Many models or many trials: tasks, the workers that do them, and a journal that survives a kill."""
