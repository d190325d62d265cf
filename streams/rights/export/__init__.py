"""Access and portability (Art. 15 and 20 GDPR): everything held about one recipient, as files that she can use.

gather   the stores, the state and the key ring -> Export
held     what an Export is: the one shape from which every file is made, and its JSON Schema
tables   Export -> CSV, one file for each kind of thing and purpose
page     Export -> one HTML page, German and English
bundle   all files of an export: written to a folder, or packed and sealed
requests tracking.requests -> sealed exports and their receipts
"""
