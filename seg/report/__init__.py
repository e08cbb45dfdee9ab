"""What a person looks at: panels, curves, tables, pages."""
