-- What an erasure removes leaves the disk a minute after the parts that held it were written anew (streams/resources.py:
-- let_go); old parts would otherwise stay for eight.

ALTER TABLE consents MODIFY SETTING old_parts_lifetime = 60;
ALTER TABLE disclosures MODIFY SETTING old_parts_lifetime = 60;
