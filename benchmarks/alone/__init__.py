"""What is measured of rowtine alone, because nobody else has it or nobody else was asked."""
