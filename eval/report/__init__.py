"""Results for people: tables, the HTML page, the before/after drawing."""
