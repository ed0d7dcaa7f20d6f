"""The client: an endpoint that keeps its own key, and stands in the line with its neighbours."""
