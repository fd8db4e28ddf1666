"""HTTP only: from requests to calls, from answers to replies."""
