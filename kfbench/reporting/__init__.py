"""From records to tables, plots and pages. No torch here."""
