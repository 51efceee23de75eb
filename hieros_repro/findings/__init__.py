"""From runs to findings: what run folders say, in groups, with statistics, compared and reported."""
