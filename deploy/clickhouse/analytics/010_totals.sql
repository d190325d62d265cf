-- What figures are added up by, over mailings: the noisy total as it is, not rounded, kept from falling or held back, and its
-- standard deviation. Its errors average out; those of figures that never fall do not. Of older rows: nearly so.
ALTER TABLE published ADD COLUMN total Float64 DEFAULT recipients AFTER measured;
ALTER TABLE published ADD COLUMN deviation Float64 DEFAULT margin / 1.959964 AFTER total;
