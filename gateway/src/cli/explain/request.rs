//! `gateway explain request`: which route takes a request, by the configuration and without sending it.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};

use clap::Args;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::super::ConfigFile;
use super::super::failure::{Failure, Outcome};
use super::super::output::{Column, Out, Paint, clean};
use crate::agent::environment;
use crate::config;
use crate::model::BodyBounds;
use crate::proxy::{Asked, Explanation, explain};

/// The request.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The method
    #[arg(value_name = "METHOD")]
    method: Method,
    /// The URL, with its host
    #[arg(value_name = "URL")]
    url: Uri,
    /// A header field, as in curl; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Its body, or @ and the name of a file that has it; unlike curl, this says nothing of its media type
    #[arg(short = 'd', long, value_name = "TEXT|@FILE")]
    data: Option<String>,
    /// Whom it comes from
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    source: IpAddr,
    /// The listener that it comes by; without it, the first
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a field is a name, a colon and a value")?;
    let name = name.trim().to_ascii_lowercase();
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "this is not the name of a field")?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "this cannot be the value of a field")?;
    Ok((name, value))
}

pub(super) fn run(arguments: &Arguments, out: &mut Out) -> Outcome {
    let model = match config::load(&arguments.file.config, &environment) {
        Ok(model) => model,
        Err(report) => {
            out.text(&report.render(out.color))?;
            return Err(Failure::No);
        }
    };
    let explained = explain(&model.proxy, asked(arguments)?).map_err(Failure::Wrong)?;
    if arguments.json {
        out.json(&explained)?;
    } else {
        print(&explained, out)?;
    }
    if explained.route.is_some() { Ok(()) } else { Err(Failure::No) }
}

fn asked(arguments: &Arguments) -> Result<Asked, Failure> {
    let mut request = Request::new(());
    *request.method_mut() = arguments.method.clone();
    *request.uri_mut() = arguments.url.clone();
    for (name, value) in &arguments.fields {
        request.headers_mut().append(name, value.clone());
    }
    // A client names the host in both; what is asked for is what counts.
    let host = arguments.url.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host.filter(|_| !request.headers().contains_key(http::header::HOST)) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let is_secure = arguments.url.scheme_str() == Some("https");
    let server_name = arguments.url.host().filter(|_| is_secure).map(str::to_ascii_lowercase);
    let body = body(arguments.data.as_deref().unwrap_or_default()).map_err(Failure::Wrong)?;
    let (client, listener) = (arguments.source, arguments.listener.clone());
    Ok(Asked { request, body, client, listener, server_name })
}

fn body(data: &str) -> Result<Vec<u8>, String> {
    let Some(path) = data.strip_prefix('@') else { return Ok(data.as_bytes().to_owned()) };
    let mut body = Vec::new();
    // One byte more than is ever read shows that it is too large.
    let read =
        File::open(path).and_then(|file| file.take(BodyBounds::MAX_BYTES as u64 + 1).read_to_end(&mut body));
    read.map(|_| body).map_err(|error| format!("cannot read {path}: {error}"))
}

fn print(explained: &Explanation, out: &mut Out) -> Outcome {
    let (route, paint) = match &explained.route {
        Some(route) => (clean(route), Paint::Green),
        None => ("no route".to_owned(), Paint::Red),
    };
    let route = out.paint(paint, &route);
    let host = explained.host.as_deref().unwrap_or("(no host)");
    out.line(format!("{} {}: {route}: {}", clean(host), clean(&explained.path), clean(&explained.outcome)))?;
    let columns = [Column::words("ROUTE"), Column::words("PATH"), Column::words("WHY")];
    let row = |candidate: &crate::proxy::Candidate| {
        [&candidate.route, &candidate.path, &candidate.why].map(|text| clean(text)).to_vec()
    };
    let rows: Vec<Vec<String>> = explained.candidates.iter().map(row).collect();
    if !rows.is_empty() {
        out.table(&columns, &rows)?;
    }
    Ok(out.line(format!("{} other routes are for other hosts or paths", explained.others))?)
}
