"""Chats about a clip with a real model, from a store and without one."""
