"""The web page: chat, two models side by side, and run folders."""
