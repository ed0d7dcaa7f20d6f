"""A whole deployment on one machine, with policy time moved in legs."""
