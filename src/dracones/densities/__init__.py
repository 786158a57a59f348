"""densities"""
