"""Sections and the rules between them; how every command starts."""
