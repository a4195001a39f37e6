"""Pictures and tables of the documents, and the demo."""
