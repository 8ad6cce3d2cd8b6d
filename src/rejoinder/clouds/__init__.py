"""Credentials of AWS and Google Cloud, and AWS's errors and signature."""
