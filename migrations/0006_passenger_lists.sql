-- Indexes for lists of passengers. Where many share a value the key is in the index too, so that a list begins anywhere
-- without a sort; fares and names repeat less, and without the key these two cost a write two fifths less. Columns of two or
-- three values (survived, passenger_class, sex) have none: such a value is frequent enough to be found in the order of
-- another column. docs/decisions/0030 has what each costs and saves.

create index passengers_by_age on passengers (age, uuid);
create index passengers_by_siblings_or_spouses_aboard on passengers (siblings_or_spouses_aboard, uuid);
create index passengers_by_parents_or_children_aboard on passengers (parents_or_children_aboard, uuid);
create index passengers_by_fare on passengers (fare);
-- Byte order, as lists compare names, so that the order is the same whatever the database's locale.
create index passengers_by_name on passengers (name collate "C");

-- For like and ilike anywhere in a name. PostgreSQL lets a database's owner create this extension; where an operator does
-- not, or has put it where it is not found, the same queries read the table instead.
do $$
begin
    create extension if not exists pg_trgm;
    create index passengers_name_trigrams on passengers using gin (name gin_trgm_ops);
exception
    when insufficient_privilege or undefined_file or feature_not_supported or undefined_object then
        raise notice 'no index for patterns in names: %', sqlerrm;
end
$$;
