//! Tests of the dialect: what others' requests become ([`target`]), and what must hold of everything ([`properties`]).

mod properties;
mod target;
