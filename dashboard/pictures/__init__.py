"""What is seen, made without a screen: colours, figures, tables and galleries as HTML, and the map's points as bytes.
Computes nothing about the model; text of users is escaped here.
"""
