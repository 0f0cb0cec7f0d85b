-- Names of stations may hold letters of any script and blanks. Which characters are letters is up to src/air_quality/model.rs,
-- because the column's collation knows those of ASCII alone; what would need quotes in CSV or JSON, separate names or begin a
-- formula is refused here. Every name that is there satisfies it.

alter table air_quality drop constraint air_quality_id_entity;
alter table air_quality add constraint air_quality_id_entity check (
    char_length(id_entity) between 1 and 100
    and id_entity !~ '[[:cntrl:],"\\]'
    and id_entity !~ '^[-=+@ ]'
    and id_entity !~ ' $'
);
