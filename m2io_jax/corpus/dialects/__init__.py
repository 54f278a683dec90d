"""What site generators and wikis add to Markdown, one family a file, rewritten as Markdown and HTML."""
