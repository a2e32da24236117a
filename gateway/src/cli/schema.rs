//! `gateway schema`: the JSON Schema of the configuration, for editors.

use super::failure::{Failure, Outcome};
use super::output::Out;
use crate::config;

pub(super) fn run(out: &mut Out) -> Outcome {
    let schema = serde_json::to_string_pretty(&config::schema());
    Ok(out.line(schema.map_err(|error| Failure::System(error.to_string()))?)?)
}
