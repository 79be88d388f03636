"""REALM's recipe: warm start, pre-training with a refreshed index, open question answering."""
