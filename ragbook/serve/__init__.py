"""The live page: a question, and every method's answer beside the others as soon as it is ready."""
