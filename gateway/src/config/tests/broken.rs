//! Broken configurations, each with everything that is reported of it: `line:column+length message`, the
//! file in front when it is not the configuration, and `-> suggestion` behind where there is one.

/// Name, configuration, report.
pub(crate) const BROKEN: &[(&str, &str, &[&str])] = &[
    (
        "unclosed list",
        "kernel:\n  interfaces: [eth0\n",
        &["2:20+1 not YAML: while parsing a flow sequence, expected ',' or ']'"],
    ),
    (
        "unclosed quote",
        "admin: {socket: \"x}\n",
        &["1:17+1 not YAML: while scanning a quoted scalar, found unexpected end of stream"],
    ),
    (
        "colon in a value",
        "workers: a: b\n",
        &["1:11+1 not YAML: mapping values are not allowed in this context"],
    ),
    (
        "bad indentation",
        "kernel:\n  attach: off\n    deny: []\n",
        &["3:9+1 not YAML: mapping values are not allowed in this context"],
    ),
    (
        "tab as indentation",
        "kernel:\n\tattach: off\n",
        &["2:2+1 not YAML: tabs disallowed within this context (block indentation)"],
    ),
    ("unknown alias", "kernel: *k\n", &["1:9+1 not YAML: while parsing node, found unknown anchor"]),
    ("alias of itself", "kernel: &k\n  deny: [*k]\n", &["2:10+2 an alias cannot stand inside of itself"]),
    (
        "two documents",
        "workers: 1\n---\nworkers: 2\n",
        &["2:1+3 a configuration is one YAML document; take this `---` out"],
    ),
    (
        "too deep",
        "a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
        &["1:35+1 nested deeper than 32 levels"],
    ),
    (
        "duplicate key",
        "workers: 1\ndrain_timeout: 1s\nworkers: 2\n",
        &["3:1+7 `workers` is given twice; the first is on line 1"],
    ),
    (
        "duplicate name",
        "upstreams:\n  u: {endpoints: [http://a]}\n  u: {endpoints: [http://b]}\n",
        &["3:3+1 `u` is given twice; the first is on line 2"],
    ),
    ("key that is a list", "[a]: 1\n", &["1:1+3 a key is a name, not a list or a map"]),
    (
        "merge key",
        "kernel:\n  <<: {attach: off}\n",
        &["2:3+2 merge keys are not part of YAML 1.2; write the keys out, or use an alias for the whole map"],
    ),
    (
        "a list at the top",
        "- kernel\n",
        &[
            "1:1+1 expected a map with `kernel`, `listeners`, `upstreams`, `routes`, `llm`, `zone`, `resolvers`, `access_log`, `workers`, `drain_timeout`, `acme` and `admin`, found a list",
        ],
    ),
    (
        "a word at the top",
        "hello\n",
        &[
            "1:1+5 expected a map with `kernel`, `listeners`, `upstreams`, `routes`, `llm`, `zone`, `resolvers`, `access_log`, `workers`, `drain_timeout`, `acme` and `admin`, found `hello`",
        ],
    ),
    ("unknown key", "kernels: {}\n", &["1:1+7 unknown key `kernels` -> kernel"]),
    ("unknown key, far from all", "xyzzy: 1\n", &["1:1+5 unknown key `xyzzy`"]),
    ("camel case", "drainTimeout: 1s\n", &["1:1+12 unknown key `drainTimeout` -> drain_timeout"]),
    ("hyphens", "kernel: {}\ndrain-timeout: 1s\n", &["2:1+13 unknown key `drain-timeout` -> drain_timeout"]),
    ("key of a later version", "kernel:\n  limits: {}\n", &["2:3+6 unknown key `limits`"]),
    (
        "key in a listener",
        "listeners:\n  web: {address: 0.0.0.0:8080, header_time_out: 1s}\n",
        &["2:32+15 unknown key `header_time_out` -> header_timeout"],
    ),
    (
        "shortened key",
        "listeners:\n  web:\n    addr: 0.0.0.0:80\n",
        &[
            "2:3+3 `address` is missing; it takes an IP address and a port",
            "3:5+4 unknown key `addr` -> address",
        ],
    ),
    (
        "section is a word",
        "kernel: on\n",
        &[
            "1:9+2 expected a map with `interfaces`, `attach`, `default`, `allow`, `deny`, `bans` and `list_cache`, found `on`",
        ],
    ),
    (
        "map is a list",
        "listeners:\n  - address: 0.0.0.0:80\n",
        &[
            "2:3+1 expected a map from names to maps with `address`, `tls`, `http2`, `http3`, `max_concurrent_streams`, `passthrough`, `proxy_protocol`, `trusted_proxies`, `header_timeout`, `idle_timeout`, `max_header_size`, `max_header_count`, `request_ids`, `begin_traces` and `max_connections`, found a list",
        ],
    ),
    (
        "list is a word",
        "kernel:\n  interfaces: eth0\n",
        &["2:15+4 expected a list, each entry the name of an interface, found `eth0`"],
    ),
    (
        "scalar is a list",
        "workers: [1]\n",
        &["1:10+3 expected `auto` or a number from 1 to 1024, found a list"],
    ),
    (
        "scalar is a map",
        "drain_timeout: {seconds: 3}\n",
        &["1:16+12 expected a duration from 0s to 1h, found a map"],
    ),
    ("scalar is nothing", "drain_timeout:\n", &["1:1+13 expected a duration from 0s to 1h, found nothing"]),
    (
        "required is nothing",
        "listeners:\n  web:\n    address:\n",
        &["3:5+7 expected an IP address and a port, found nothing"],
    ),
    (
        "required is missing",
        "listeners:\n  web: {}\n  other:\n",
        &[
            "2:3+3 `address` is missing; it takes an IP address and a port",
            "3:3+5 `address` is missing; it takes an IP address and a port",
        ],
    ),
    (
        "name in capitals",
        "upstreams:\n  Users: {endpoints: [http://a]}\n",
        &["2:3+5 `Users` cannot be a name; names are 1 to 63 of a-z, 0-9, _ and - -> users"],
    ),
    (
        "name with a space",
        "upstreams:\n  \"my users!\": {endpoints: [http://a]}\n",
        &["2:3+11 `my users!` cannot be a name; names are 1 to 63 of a-z, 0-9, _ and -"],
    ),
    (
        "name too long",
        "upstreams:\n  uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu: {endpoints: [http://a]}\n",
        &[
            "2:3+64 `uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu…` cannot be a name; names are 1 to 63 of a-z, 0-9, _ and -",
        ],
    ),
    (
        "certificate that is not there",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: no.pem, key: site.key}]}\n",
        &["4:26+29 DIR/no.pem is not there"],
    ),
    (
        "certificate with another's key",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.pem, key: other.key}]}\n",
        &["4:26+32 the key in DIR/other.key is not that of the certificate in DIR/site.pem"],
    ),
    (
        "certificate and key exchanged",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.key, key: site.pem}]}\n",
        &["4:26+31 DIR/site.key cannot be used: there is no certificate in PEM in it"],
    ),
    (
        "no private key",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.pem, key: secret.txt}]}\n",
        &["4:26+33 DIR/secret.txt cannot be used: there is no private key in PEM in it, or it is encrypted"],
    ),
    (
        "no OCSP response",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.pem, key: site.key, ocsp: site.pem}]}\n",
        &["4:26+47 DIR/site.pem cannot be used: it is no OCSP response in DER"],
    ),
    (
        "no certificate at all",
        "listeners:\n  web: {address: 0.0.0.0:8443, tls: {certificates: []}}\n  other: {address: 0.0.0.0:8444, tls: {}}\n",
        &[
            "2:3+3 `tls` needs at least one certificate",
            "3:39+2 `certificates` is missing; it takes a list, each entry a map with `cert`, `key`, `acme` and `ocsp`",
        ],
    ),
    (
        "authority without a certificate",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.pem, key: site.key}], \
         clients: {ca: secret.txt}}\n",
        &["4:74+10 DIR/secret.txt cannot be used: there is no certificate in PEM in it"],
    ),
    (
        "version that nobody speaks",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.pem, key: site.key}], \
         min_version: 1.1}\n",
        &["4:73+3 expected `1.2` or `1.3`, found `1.1` -> 1.2"],
    ),
    (
        "HTTP/3 in the clear",
        "listeners:\n  web: {address: 0.0.0.0:8080, http3: true}\n",
        &["2:39+4 HTTP/3 is spoken under TLS alone; give the listener `tls`"],
    ),
    (
        "HTTP/3 from a load balancer",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.pem, key: site.key}]}\n    \
         http3: true\n    proxy_protocol: [10.0.0.0/8]\n",
        &[
            "5:12+4 a load balancer that speaks the PROXY protocol cannot say whom a datagram is from; `http3` does not go with `proxy_protocol`",
        ],
    ),
    #[cfg(not(feature = "http3"))]
    (
        "HTTP/3 in a build without it",
        "listeners:\n  web:\n    address: 0.0.0.0:8443\n    tls: {certificates: [{cert: site.pem, key: site.key}]}\n    \
         http3: true\n",
        &[
            "5:12+4 this gateway was built without HTTP/3; build it with `--features http3`, or leave `http3` out",
        ],
    ),
    (
        "duration without unit",
        "drain_timeout: 30\n",
        &["1:16+2 30 has no unit; add a unit, such as 30s -> 30s"],
    ),
    (
        "duration with a wrong unit",
        "drain_timeout: 30sec\n",
        &["1:16+5 30sec is not a duration; write one like 30s, 1h30m or 250ms (ms, s, m, h, d)"],
    ),
    (
        "duration with a fraction",
        "drain_timeout: 1.5s\n",
        &["1:16+4 1.5s is not a duration; write one like 30s, 1h30m or 250ms (ms, s, m, h, d)"],
    ),
    (
        "duration too long",
        "drain_timeout: 2h\n",
        &["1:16+2 2h is out of bounds; expected a duration from 0s to 1h"],
    ),
    (
        "duration too short",
        "listeners:\n  web: {address: 0.0.0.0:8080, header_timeout: 0s}\n",
        &["2:48+2 0s is out of bounds; expected a duration from 100ms to 1h"],
    ),
    (
        "duration beyond all",
        "upstreams:\n  u: {endpoints: [http://127.0.0.1:1], idle_timeout: 99999999999999999999d}\n",
        &["2:54+21 99999999999999999999d is too long; the longest duration is 3650d"],
    ),
    (
        "size without unit",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_header_size: 32768}\n",
        &["2:49+5 32768 has no unit; add a unit, such as 32KiB -> 32KiB"],
    ),
    (
        "size with a wrong unit",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_header_size: 32kib}\n",
        &["2:49+5 32kib is not a size; write one like 32KiB (B, kB, MB, GB, KiB, MiB, GiB) -> 32KiB"],
    ),
    (
        "size in words",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_header_size: big}\n",
        &["2:49+3 big is not a size; write one like 32KiB (B, kB, MB, GB, KiB, MiB, GiB)"],
    ),
    (
        "size too small",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_header_size: 10B}\n",
        &["2:49+3 10B is out of bounds; expected a size from 1KiB to 1MiB"],
    ),
    (
        "size too large",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_header_size: 99999999999GiB}\n",
        &["2:49+14 99999999999GiB is too large"],
    ),
    (
        "count with a word",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_connections: many}\n",
        &["2:49+4 many is not a whole number; expected a number from 1 to 1000000"],
    ),
    (
        "count negative",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_header_count: -1}\n",
        &["2:50+2 -1 is not a whole number; expected a number from 1 to 1000"],
    ),
    (
        "count of zero",
        "listeners:\n  web: {address: 0.0.0.0:8080, max_header_count: 0}\n",
        &["2:50+1 0 is out of bounds; expected a number from 1 to 1000"],
    ),
    ("workers", "workers: 0\n", &["1:10+1 0 is out of bounds; expected a number from 1 to 1024, or `auto`"]),
    (
        "workers, a word",
        "workers: all\n",
        &["1:10+3 all is not a whole number; expected a number from 1 to 1024, or `auto`"],
    ),
    (
        "address without port",
        "listeners:\n  web: {address: 0.0.0.0}\n",
        &["2:18+7 0.0.0.0 is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080"],
    ),
    (
        "port alone",
        "listeners:\n  web: {address: \":8080\"}\n",
        &["2:18+7 :8080 is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080 -> 0.0.0.0:8080"],
    ),
    (
        "localhost",
        "listeners:\n  web: {address: localhost:8080}\n",
        &[
            "2:18+14 localhost:8080 is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080 -> 127.0.0.1:8080",
        ],
    ),
    (
        "v6 without brackets",
        "listeners:\n  web: {address: \"::1:8080\"}\n",
        &[
            "2:18+10 ::1:8080 is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080 -> [::1]:8080",
        ],
    ),
    (
        "port 0",
        "listeners:\n  web: {address: 127.0.0.1:0}\n",
        &["2:18+11 port 0 would be another one at every start; name one from 1 to 65535"],
    ),
    (
        "port too large",
        "listeners:\n  web: {address: 127.0.0.1:70000}\n",
        &["2:18+15 127.0.0.1:70000 is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080"],
    ),
    (
        "two listeners on one address",
        "listeners:\n  a: {address: 0.0.0.0:80}\n  b: {address: 0.0.0.0:80}\n",
        &["3:16+10 the listeners `a` and `b` have the same address"],
    ),
    (
        "listener on the admin address",
        "listeners:\n  a: {address: 127.0.0.1:9900}\n",
        &["2:16+14 the listener `a` has the address of `admin`"],
    ),
    (
        "admin address",
        "admin: {address: none}\n",
        &["1:18+4 none is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080, or `off`"],
    ),
    (
        "admin socket too long",
        "admin: {socket: /sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss}\n",
        &["1:17+108 a path has 1 to 107 bytes here, this one has 108"],
    ),
    (
        "trusted proxy",
        "listeners:\n  web: {address: 0.0.0.0:8080, trusted_proxies: [10.0.0.1/8]}\n",
        &["2:50+10 10.0.0.1/8 has host bits set -> 10.0.0.0/8"],
    ),
    (
        "trust everybody",
        "listeners:\n  web: {address: 0.0.0.0:8080, trusted_proxies: [0.0.0.0/0]}\n",
        &["2:50+9 0.0.0.0/0 covers every address there is"],
    ),
    (
        "https with a path",
        "upstreams:\n  u: {endpoints: [\"https://a/x\"], tls: {ca: clients.pem}}\n",
        &["2:19+13 an endpoint has no path; the request's own path is sent on -> https://a"],
    ),
    (
        "HTTP/2 as an upgrade",
        "upstreams: {u: {endpoints: [\"http://a\"]}}\nroutes:\n  r: {upstream: u, upgrades: [h2c, \"web socket\"]}\n",
        &[
            "3:31+3 h2c cannot be upgraded to; clients that speak HTTP/2 do so from the first byte on; see `http2` of a listener",
            "3:36+12 web socket is not a protocol such as websocket",
        ],
    ),
    (
        "versions of HTTP that cannot be",
        "upstreams:\n  u: {endpoints: [\"http://a\"], protocol: auto}\n  v: {endpoints: [\"http://a\"], protocol: http2, \
         proxy_protocol: v1}\n",
        &[
            "2:42+4 `auto` asks in the handshake of TLS, and no endpoint has https://; say `http1` or `http2`",
            "3:65+2 the PROXY protocol is said once a connection, and over HTTP/2 clients share connections; use `protocol: http1`, or leave it to X-Forwarded-For",
        ],
    ),
    (
        "routes that do nothing, or too much",
        "upstreams: {u: {endpoints: [\"http://a\"]}}\nroutes:\n  a: {upstream: u, respond: {}}\n  b: {match: {path: /b}, \
         redirect: {}}\n  c: {match: {path: /c}, split: [{upstream: u, weight: 0}]}\n  d: {match: {path: /d}, upstream: u, \
         sticky: {cookie: x}}\n  e: {match: {path: /e}, respond: {}, rewrite: {prefix: /}}\n  f: {match: {path: /f}, split: \
         [{upstream: u}, {upstream: u}], sticky: {}}\n",
        &[
            "3:3+1 the route `a` has more than one of `upstream`, `split`, `llm`, `redirect` and `respond`",
            "4:36+2 `redirect` changes nothing: clients would come back for ever",
            "5:3+1 every weight in `split` of the route `c` is 0",
            "6:47+11 `sticky` is for routes with `split`",
            "7:48+11 `rewrite` is for routes with `upstream` or `split`",
            "8:60+1 this upstream is listed twice; the first is on line 8",
            "8:73+2 `sticky` takes one of `cookie` and `header`",
        ],
    ),
    (
        "mirrors that cannot be",
        "upstreams: {u: {endpoints: [\"http://a\"]}, shadow: {endpoints: [\"http://b\"]}}\nroutes:\n  a: {match: {path: /a}, \
         respond: {}, mirror: {upstream: u}}\n  b: {match: {path: /b}, upstream: u, mirror: [{upstream: shadov}, {percent: \
         10}]}\n  c: {match: {path: /c}, upstream: u, mirror: [{upstream: shadow}, {upstream: shadow, percent: 101%}]}\n  \
         d: {match: {path: /d}, upstream: u, mirror: shadow}\n",
        &[
            "3:47+13 `mirror` is for routes with `upstream` or `split`",
            "4:59+6 there is no upstream `shadov` -> shadow",
            "4:68+13 `upstream` is missing; it takes the name of an upstream",
            "4:78+2 10 is not a share; expected a share from 0% to 100% -> 10%",
            "5:79+6 this upstream is listed twice; the first is on line 5",
            "5:96+4 101% is not a share; expected a share from 0% to 100%",
            "6:47+6 expected a map with `upstream`, `percent`, `timeout`, `buffer` and `max_concurrent`, found `shadow`",
        ],
    ),
    (
        "paths with parameters",
        "upstreams: {u: {endpoints: [\"http://a\"]}}\nroutes:\n  a: {match: {path: \"/a/{id}/{id}\"}, upstream: u}\n  b: \
         {match: {path: \"/b/x{id}\"}, upstream: u}\n  c: {match: {path: \"/c/{id}\"}, upstream: u, rewrite: {path: \
         \"/x/{ib}\"}}\n  d: {match: {path: {regex: \"/d/.*\"}}, upstream: u, rewrite: {prefix: /}}\n  e: {match: {path: \
         {regex: \"/e(\"}}, upstream: u}\n  f: {match: {path: \"/f/{id}\"}, upstream: u, rewrite: {path: /x, prefix: /y}}\n",
        &[
            "3:21+14 the parameter {id} stands in the path twice",
            "4:21+10 a parameter is a whole segment of letters, digits and _ in braces, as in /users/{id}; parts of a segment take `{regex: \"…\"}`",
            "5:62+9 the path of `match` has no parameter {ib} -> {id}",
            "6:71+1 a regular expression has no prefix; use `path`",
            "7:29+5 this is no regular expression: unclosed group",
            "8:74+2 a path changes by one of `path` and `prefix`",
        ],
    ),
    (
        "what is asked of fields",
        "upstreams: {u: {endpoints: [\"http://a\"]}}\nlisteners: {web: {address: 0.0.0.0:80}}\nroutes:\n  a: {match: {headers: \
         {\"x y\": 1, x-a: {regex: \"[\"}, x-b: {}, x-c: {regex: a, present: true}, x-d: [1]}, listeners: [wep]}, \
         upstream: u}\n",
        &[
            "4:25+5 x y is not the name of a header field",
            "4:48+3 this is no regular expression: unclosed character class",
            "4:59+2 x-b takes one of `regex` and `present`",
            "4:68+25 x-c takes one of `regex` and `present`",
            "4:100+3 expected a value, or a map with `regex` or `present`, found a list",
            "4:118+3 there is no listener `wep` -> web",
        ],
    ),
    (
        "routes that ask the same",
        "upstreams: {u: {endpoints: [\"http://a\"]}}\nroutes:\n  a: {match: {headers: {x-a: 1, x-b: 2}}, upstream: u}\n  b: \
         {match: {headers: {x-b: 2, X-A: 1}}, upstream: u}\n  c: {match: {headers: {x-a: 2}}, upstream: u}\n",
        &[
            "4:3+1 the routes `a` (line 3) and `b` take the same requests; give one of them another host, path or method",
        ],
    ),
    (
        "certificates from nobody",
        "listeners:\n  a: {address: 0.0.0.0:1, tls: {certificates: [{acme: [a.test]}, {cert: site.pem}]}}\n",
        &[
            "2:48+16 nothing says who issues this certificate; add `acme` to the file",
            "2:66+16 a certificate needs `cert` and `key`",
        ],
    ),
    (
        "certificates by ACME",
        "acme: {directory: \"https://ca.test/dir\", agree_to_terms: false, ca: none.pem}\nlisteners:\n  a: {address: \
         0.0.0.0:1, tls: {certificates: [{acme: [a.test]}, {acme: [a.test, b.test]}, {acme: [c.test], key: x}]}}\n",
        &[
            "1:7+71 an authority issues nothing before its terms of service are agreed to: read them, and say `agree_to_terms: true`",
            "1:69+8 DIR/none.pem is not there",
            "3:66+24 two certificates begin with the name a.test; name it in one of them",
            "3:92+24 a certificate is files, or `acme` and nothing else",
        ],
    ),
    (
        "header changes",
        "upstreams: {u: {endpoints: [\"http://a\"]}}\nroutes:\n  a:\n    upstream: u\n    request_headers: {set: {Host: x, \
         \"x y\": 1, x-a: \"{client.id}\", x-b: \"{route\", x-c: \"{{ok}} {route}\"}, remove: [te], add: {x-d: [1]}}\n",
        &[
            "5:29+4 host cannot be changed: the gateway writes it; see `rewrite`",
            "5:38+5 x y is not the name of a header field",
            "5:53+13 there is no variable {client.id} -> {client.ip}",
            "5:73+8 a `{` in {route has no `}`; a brace itself is written twice",
            "5:116+2 te cannot be changed: the gateway writes it",
            "5:132+3 expected the value of a header field, found a list",
        ],
    ),
    (
        "origins",
        "upstreams: {u: {endpoints: [\"http://a\"]}}\nroutes:\n  a: {match: {path: /a}, upstream: u, cors: {origins: [app.test, \
         \"https://a.test/\", \"https://*.a.test\", \"https://a.*.test\"]}}\n  b: {match: {path: /b}, upstream: u, cors: \
         {origins: [\"*\"], credentials: true}}\n  c: {match: {path: /c}, upstream: u, cors: {origins: [\"*\", null]}}\n  d: \
         {match: {path: /d}, upstream: u, cors: {origins: []}}\n",
        &[
            "3:56+8 app.test is not an origin such as https://app.example.com or https://*.example.com, or `*`",
            "3:66+17 an origin has no slash at its end -> https://a.test",
            "3:105+18 https://a.*.test is not an origin such as https://app.example.com or https://*.example.com, or `*`",
            "4:56+3 with `credentials`, every page anywhere could act as its visitor here; name the origins",
            "5:61+4 expected an origin such as https://app.example.com or https://*.example.com, or `*`, found nothing",
            "6:45+13 `cors` needs at least one origin",
        ],
    ),
    (
        "passed on to nobody",
        "listeners:\n  a:\n    address: 0.0.0.0:80\n    passthrough:\n      - {server_names: [b.test, B.test], upstream: \
         z}\n      - {server_names: [], upstream: u}\nupstreams: {u: {endpoints: [\"http://a\"]}}\n",
        &[
            "2:3+1 an entry of `passthrough` needs at least one server name",
            "5:33+6 this server name is listed twice; the first is on line 5",
            "5:52+1 there is no upstream `z`",
        ],
    ),
    (
        "tls to nobody",
        "upstreams:\n  u: {endpoints: [\"http://a\"], tls: {ca: clients.pem}}\n",
        &["2:3+1 the upstream `u` has `tls` but no endpoint with https://"],
    ),
    (
        "wrong files of an upstream",
        "upstreams:\n  u:\n    endpoints: [\"https://a\"]\n    tls: {ca: site.key, name: a/b, certificate: {cert: site.pem, key: other.key}}\n",
        &[
            "4:15+8 DIR/site.key cannot be used: there is no certificate in PEM in it",
            "4:31+3 a/b is no host name",
            "4:49+32 the key in DIR/other.key is not that of the certificate in DIR/site.pem",
        ],
    ),
    (
        "sockets without a path, and with too long a one",
        "upstreams:\n  u: {endpoints: [\"unix:\", \"unix:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]}\n",
        &[
            "2:19+7 a path has 1 to 107 bytes here, this one has 0",
            "2:28+119 a path has 1 to 107 bytes here, this one has 112",
        ],
    ),
    (
        "no scheme",
        "upstreams:\n  u: {endpoints: [\"127.0.0.1:80\"]}\n",
        &["2:19+14 127.0.0.1:80 does not begin with http://, https:// or unix: -> http://127.0.0.1:80"],
    ),
    (
        "other scheme",
        "upstreams:\n  u: {endpoints: [\"h2c://a\"]}\n",
        &["2:19+9 h2c://a does not begin with http://, https:// or unix:"],
    ),
    (
        "endpoint with path",
        "upstreams:\n  u: {endpoints: [\"http://a/b\"]}\n",
        &["2:19+12 an endpoint has no path; the request's own path is sent on -> http://a"],
    ),
    (
        "endpoint with a password",
        "upstreams:\n  u: {endpoints: [\"http://a:b@c\"]}\n",
        &["2:19+14 an endpoint has no user name or password"],
    ),
    (
        "endpoint with a bad port",
        "upstreams:\n  u: {endpoints: [\"http://a:99999\"]}\n",
        &["2:19+16 http://a:99999 is not http://HOST or http://HOST:PORT"],
    ),
    (
        "endpoint with a bad address",
        "upstreams:\n  u: {endpoints: [\"http://127.0.0.300\"]}\n",
        &["2:19+20 http://127.0.0.300 is not http://HOST or http://HOST:PORT"],
    ),
    (
        "endpoint twice",
        "upstreams:\n  u: {endpoints: [http://a, http://A:80]}\n",
        &["2:29+11 this endpoint is listed twice; the first is on line 2"],
    ),
    (
        "where endpoints come from",
        "resolvers: [ns.test, 10.0.0.1:0]\nupstreams:\n  a: {discover: {}}\n  b: {discover: {dns: \"http://10.0.0.1\"}}\n  \
         c: {discover: {dns: \"unix:x\"}}\n  d: {discover: {dns: \"http://a\", srv: \"http://b\"}}\n  e: {discover: {srv: \
         \"http://a:80\"}}\n  f: {discover: {srv: _http._tcp.a}}\n  g: {discover: {srv: \"http://a\", min_ttl: 2m, max_ttl: \
         1m}}\n  h: {discover: {file: endpoints.yaml, family: ipv4}}\n  i: {}\n  j: {discover: {dns: \"http://a\"}, protocol: \
         auto}\n  k: {discover: {srv: \"http://a\"}, tls: {verify: false}}\n",
        &[
            "1:13+7 ns.test is not an IP address, perhaps with a port",
            "1:22+10 10.0.0.1:0 is not an IP address, perhaps with a port",
            "3:17+2 `discover` takes one of `dns`, `srv` and `file`",
            "4:23+17 an address has nothing to look up; name it in `endpoints`",
            "5:23+8 a socket on this host has no name to look up",
            "6:17+34 `discover` takes one of `dns`, `srv` and `file`",
            "7:23+13 http://a:80 has a port, which is for the records to say",
            "8:23+12 _http._tcp.a does not begin with http:// or https:// -> http://_http._tcp.a",
            "9:17+43 `min_ttl` is longer than `max_ttl`",
            "10:40+6 `family` goes with `dns` or `srv`",
            "11:3+1 an upstream needs `endpoints` or `discover`",
            "12:46+4 `auto` asks in the handshake of TLS, and no endpoint has https://; say `http1` or `http2`",
            "13:3+1 the upstream `k` has `tls` but no endpoint with https://",
        ],
    ),
    (
        "files of endpoints",
        "upstreams:\n  a: {discover: {file: absent.yaml}}\n  b: {discover: {file: bad-endpoints.yaml}}\n  c: {discover: \
         {file: .}}\n",
        &[
            "2:24+11 DIR/absent.yaml cannot be read: No such file or directory (os error 2)",
            "4:24+1 DIR/. cannot be read: Is a directory (os error 21)",
            "DIR/bad-endpoints.yaml 2:9+8 10.1.0.2 does not begin with http://, https:// or unix: -> http://10.1.0.2",
            "DIR/bad-endpoints.yaml 2:19+6 unknown key `weigth` -> weight",
        ],
    ),
    (
        "an endpoint without a URL",
        "upstreams:\n  u: {endpoints: [{weight: 2}, {url: \"http://a\", weight: 0}]}\n",
        &[
            "2:19+11 `url` is missing; it takes a server such as http://127.0.0.1:9001",
            "2:58+1 0 is out of bounds; expected a number from 1 to 1000",
        ],
    ),
    (
        "the same server twice, with other weights",
        "upstreams:\n  u: {endpoints: [\"http://a\", {url: \"http://a:80\", weight: 2}]}\n",
        &["2:31+31 this endpoint is listed twice; the first is on line 2"],
    ),
    (
        "balances that nobody knows",
        "upstreams:\n  u: {endpoints: [http://a], balance: random}\n  v: {endpoints: [http://a], balance: {}}\n  w: {endpoints: [http://a], balance: {hash: {path: true, source: true}}}\n  x: {endpoints: [http://a], balance: {hash: {header: \"a b\"}}}\n  y: {endpoints: [http://a], balance: {sticky: {cookie: \"a=b\"}}}\n",
        &[
            "2:39+6 expected `round_robin`, `least_request` or `peak_ewma`, found `random`",
            "3:39+2 `balance` takes one of `hash` and `sticky`",
            "4:46+26 `hash` takes one of `header`, `cookie`, `source` and `path`",
            "5:55+5 a b is not the name of a header field",
            "6:57+5 a=b is not the name of a cookie",
        ],
    ),
    (
        "health checks of another kind",
        "upstreams:\n  u: {endpoints: [http://a], health: {type: tcp, path: /a, expect: [200]}}\n  v: {endpoints: [http://a], health: {type: grpc, host: b}}\n  w: {endpoints: [http://a], health: {service: x}}\n",
        &[
            "2:56+2 `path` goes with `type: http`",
            "2:68+5 `expect` goes with `type: http`",
            "3:45+4 gRPC takes HTTP/2; say `protocol: http2` of the upstream",
            "3:57+1 `host` goes with `type: http`",
            "4:48+1 `service` goes with `type: grpc`",
        ],
    ),
    (
        "health checks that cannot be written so",
        "upstreams:\n  u: {endpoints: [http://a], panic_threshold: 101%, health: {path: a, host: a@b, expect: [299-200, 600]}}\n",
        &[
            "2:47+4 101% is not a part from 0% to 100%",
            "2:68+1 a is not a path such as /healthz",
            "2:77+3 a@b is not a host",
            "2:91+7 299-200 is not a status or a range such as 200-299",
            "2:100+3 600 is not a status or a range such as 200-299",
        ],
    ),
    (
        "retries that cannot be",
        "upstreams:\n  u: {endpoints: [http://a], retry: {on: [resets, 200, 5xx], attempts: 11, backoff: {base: 1s, max: 100ms}}}\n",
        &[
            "2:37+71 `backoff.base` is longer than `backoff.max`",
            "2:43+6 resets is not `connect`, `reset`, `timeout`, `gateway_error`, `5xx` or statuses from 400 on -> reset",
            "2:51+3 200 is not `connect`, `reset`, `timeout`, `gateway_error`, `5xx` or statuses from 400 on",
            "2:72+2 11 is out of bounds; expected a number from 1 to 10",
        ],
    ),
    (
        "hedges that cannot be",
        "upstreams:\n  u: {endpoints: [http://a], retry: {hedge: {}}}\n  v: {endpoints: [http://a], retry: {hedge: 50ms}}\n  w: \
         {endpoints: [http://a], balance: {sticky: {cookie: x}}, retry: {hedge: {after: 1s}}}\n",
        &[
            "2:45+2 `after` is missing; it takes a duration from 1ms to 1h",
            "3:45+4 expected a map with `after`, found `50ms`",
            "4:77+11 `hedge` does not go with `sticky`: sessions would move with each answer that is slow",
        ],
    ),
    (
        "upstreams that stand in for themselves or for nobody",
        "upstreams:\n  a: {endpoints: [http://a], fallback: b}\n  b: {endpoints: [http://b], fallback: a}\n  c: {endpoints: [http://c], fallback: c}\n  d: {endpoints: [http://d], fallback: a}\n  e: {endpoints: [http://e], fallback: f}\n",
        &[
            "2:40+1 the upstream `a` would stand in for itself in the end",
            "3:40+1 the upstream `b` would stand in for itself in the end",
            "4:40+1 the upstream `c` would stand in for itself in the end",
            "6:40+1 there is no upstream `f`",
        ],
    ),
    (
        "a slow start of keys",
        "upstreams:\n  u: {endpoints: [http://a], balance: {hash: {path: true}}, slow_start: 30s}\n",
        &[
            "2:73+3 a key has one endpoint, which cannot begin with less than its share; `slow_start` does not go with `hash`",
        ],
    ),
    (
        "no endpoint",
        "upstreams:\n  u: {endpoints: []}\n",
        &["2:3+1 the upstream `u` needs at least one endpoint, or `discover`"],
    ),
    (
        "bad endpoint alone",
        "upstreams:\n  u: {endpoints: [ftp]}\n",
        &["2:19+3 ftp does not begin with http://, https:// or unix: -> http://ftp"],
    ),
    (
        "interface",
        "kernel:\n  interfaces: [eth/0, \"a b\"]\n",
        &[
            "2:16+5 eth/0 is not the name of an interface; an interface's name has 1 to 15 bytes, no space, slash or colon",
            "2:23+5 a b is not the name of an interface; an interface's name has 1 to 15 bytes, no space, slash or colon",
        ],
    ),
    (
        "interface twice",
        "kernel:\n  interfaces: [eth0, eth0]\n",
        &["2:22+4 this interface is listed twice; the first is on line 2"],
    ),
    (
        "attach",
        "kernel: {attach: nativ}\n",
        &["1:18+5 expected `auto`, `native`, `generic` or `off`, found `nativ` -> native"],
    ),
    (
        "attach, far from all",
        "kernel: {attach: driver}\n",
        &["1:18+6 expected `auto`, `native`, `generic` or `off`, found `driver`"],
    ),
    (
        "drop by default, nobody allowed",
        "kernel:\n  default: drop\n  deny: [192.0.2.0/24]\n",
        &[
            "2:12+4 with `default: drop` and no entry in `allow` but what is fetched, nobody could reach this host; name the sources that may, those you administer it from among them",
        ],
    ),
    (
        "drop by default, allowed in shadow mode",
        "kernel: {default: drop, allow: [{cidr: 192.0.2.1, shadow: true}]}\n",
        &[
            "1:19+4 with `default: drop` and no entry in `allow` but what is fetched, nobody could reach this host; name the sources that may, those you administer it from among them",
        ],
    ),
    (
        "drop by default, only a fetched list allowed",
        "kernel: {default: drop, allow: [{url: \"https://192.0.2.1/ours.txt\"}]}\n",
        &[
            "1:19+4 with `default: drop` and no entry in `allow` but what is fetched, nobody could reach this host; name the sources that may, those you administer it from among them",
        ],
    ),
    ("default", "kernel: {default: deny}\n", &["1:19+4 expected `pass` or `drop`, found `deny`"]),
    (
        "host bits",
        "kernel:\n  deny:\n    - 198.51.100.7/24\n",
        &["3:7+15 198.51.100.7/24 has host bits set -> 198.51.100.0/24"],
    ),
    (
        "v4 in v6",
        "kernel:\n  deny:\n    - \"::ffff:192.0.2.1\"\n",
        &["3:7+18 ::ffff:192.0.2.1 is IPv4 mapped into IPv6, and its packets are IPv4 -> 192.0.2.1"],
    ),
    ("everything", "kernel:\n  deny:\n    - 0.0.0.0/0\n", &["3:7+9 0.0.0.0/0 covers every address there is"]),
    (
        "not an address",
        "kernel:\n  deny:\n    - example.com\n",
        &["3:7+11 example.com is not an address or a prefix"],
    ),
    (
        "prefix length",
        "kernel:\n  deny:\n    - 10.0.0.0/33\n",
        &["3:7+11 the prefix length of 10.0.0.0/33 is not a number from 1 to 32"],
    ),
    (
        "a list in a list",
        "kernel:\n  deny:\n    - [10.0.0.0/8]\n",
        &["3:7+12 expected an address, a prefix or a map, found a list"],
    ),
    (
        "an empty entry",
        "kernel:\n  deny:\n    - \n",
        &["3:7+1 expected an address, a prefix or a map, found nothing"],
    ),
    (
        "cidr and file",
        "kernel:\n  deny:\n    - {cidr: 10.0.0.0/8, file: good.txt}\n",
        &["3:7+34 an entry has one of `cidr`, `file`, `url` and `mmdb`"],
    ),
    (
        "neither cidr nor file",
        "kernel:\n  deny:\n    - {reason: x}\n",
        &["3:7+11 an entry needs `cidr`, `file`, `url` or `mmdb`"],
    ),
    (
        "unknown key in an entry",
        "kernel:\n  deny:\n    - {cdir: 10.0.0.0/8, cidr: 11.0.0.0/8}\n",
        &["3:8+4 unknown key `cdir` -> cidr"],
    ),
    (
        "label too long",
        "kernel:\n  deny:\n    - {cidr: 10.0.0.0/8, reason: rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr}\n",
        &["3:34+64 a label has 1 to 63 bytes, this one has 64"],
    ),
    (
        "label with a control character",
        "kernel:\n  deny:\n    - {cidr: 10.0.0.0/8, reason: \"a\\nb\"}\n",
        &["3:34+6 a label has no control characters"],
    ),
    (
        "label empty",
        "kernel:\n  deny:\n    - {cidr: 10.0.0.0/8, reason: \"\"}\n",
        &["3:34+2 a label has 1 to 63 bytes, this one has 0"],
    ),
    (
        "shadow",
        "kernel:\n  deny:\n    - {cidr: 10.0.0.0/8, shadow: yes}\n",
        &["3:34+3 expected `true` or `false`, found `yes`"],
    ),
    (
        "missing file",
        "kernel:\n  deny:\n    - {file: missing.txt}\n",
        &["3:14+11 cannot read the list missing.txt: No such file or directory (os error 2)"],
    ),
    (
        "bad lines in a file",
        "kernel:\n  deny:\n    - {file: bad.txt}\n",
        &[
            "DIR/bad.txt 2:1+10 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?",
            "DIR/bad.txt 4:3+8 nonsense is not an address or a prefix",
            "DIR/bad.txt 5:1+1 the line is not UTF-8",
        ],
    ),
    (
        "file with a ttl",
        "kernel:\n  deny:\n    - {file: ttl.txt}\n",
        &[
            "DIR/ttl.txt 1:11+4 a list of the configuration has no ttl, it would begin anew with every reload; import the file with `gateway deny import` or `gateway allow import`",
        ],
    ),
    (
        "file with a name too long",
        "kernel:\n  deny:\n    - {file: nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn.txt}\n",
        &[
            "3:14+68 the file's name cannot be the list's name (a list's name has 1 to 56 bytes, this one has 68); give it a `name`",
        ],
    ),
    (
        "name of a list",
        "kernel:\n  deny:\n    - {file: good.txt, name: \"\"}\n    - {file: drop.txt, name: ban}\n",
        &[
            "3:30+2 a list's name has 1 to 56 bytes, this one has 0",
            "4:30+3 ban is the name of the entries that are made singly; give the list another",
        ],
    ),
    (
        "two lists of one name",
        "kernel:\n  allow: [{file: good.txt}]\n  deny: [{file: drop.txt, name: good.txt}]\n",
        &["3:10+32 two lists are called good.txt, the other one on line 2; give one of them a `name`"],
    ),
    (
        "the name of the configuration's own list",
        "kernel:\n  deny:\n    - 192.0.2.1\n    - {file: drop.txt, name: config-deny}\n",
        &["4:7+35 two lists are called config-deny, the other one on line 3; give one of them a `name`"],
    ),
    (
        "url without a name",
        "kernel:\n  deny:\n    - {url: \"https://example.com/?list\"}\n",
        &[
            "3:13+27 the file's name cannot be the list's name (a list's name has 1 to 56 bytes, this one has 0); give it a `name`",
        ],
    ),
    (
        "url that is none",
        "kernel:\n  deny:\n    - {url: \"https://\"}\n    - {url: \"ftp://example.com/x\"}\n    - {url: \"http://example.com/x\"}\n",
        &[
            "3:13+10 this is not a URL (empty string); write it like https://host/path",
            "4:13+21 lists are fetched by https, not by ftp",
            "5:13+22 lists are fetched by https; http is only for this host itself (localhost, 127.0.0.1, [::1])",
        ],
    ),
    (
        "refresh",
        "kernel:\n  deny:\n    - {url: \"https://example.com/x\", refresh: 1s}\n    - {url: \"https://example.com/y\", refresh: 60}\n",
        &[
            "3:47+2 1s is out of bounds; expected a duration from 5s to 30d",
            "4:47+2 60 has no unit; add a unit, such as 60s -> 60s",
        ],
    ),
    (
        "max_change",
        "kernel:\n  deny:\n    - {file: good.txt, max_change: 50}\n    - {file: drop.txt, max_change: 0%}\n",
        &[
            "3:36+2 50 is not a share; expected a share from 1% to 1000%, or `any` -> 50%",
            "4:36+2 0% is not a share; expected a share from 1% to 1000%, or `any`",
        ],
    ),
    (
        "max_size",
        "kernel:\n  deny:\n    - {url: \"https://example.com/x\", max_size: 1GiB}\n",
        &["3:48+4 1GiB is out of bounds; expected a size from 1KiB to 256MiB"],
    ),
    (
        "format",
        "kernel:\n  deny:\n    - {file: good.txt, format: jason}\n",
        &["3:32+5 expected `auto`, `plain`, `ipset`, `nft`, `spamhaus_json` or `csv`, found `jason`"],
    ),
    (
        "column of a list without columns",
        "kernel:\n  deny:\n    - {file: good.txt, format: plain, column: 2}\n",
        &["3:47+1 only a CSV file has columns"],
    ),
    (
        "keys of other origins",
        "kernel:\n  deny:\n    - {cidr: 192.0.2.1, name: mine}\n    - {file: good.txt, country: [DE], asn: [1], ca: ca.pem}\n    - {mmdb: rubbish.mmdb, format: csv, asn: [1]}\n",
        &[
            "3:7+29 `name` is a key of `file`, `url` and `mmdb`",
            "4:7+53 `country` is a key of `mmdb`",
            "4:7+53 `asn` is a key of `mmdb`",
            "4:7+53 `ca` is a key of `url`",
            "5:7+43 `format` is a key of `file` and `url`",
            "5:14+12 cannot use the database DIR/rubbish.mmdb: this is no MaxMind database that can be read, or a damaged one: invalid database: could not find MaxMind DB metadata in file",
        ],
    ),
    (
        "database without a choice",
        "kernel:\n  deny:\n    - {mmdb: rubbish.mmdb}\n",
        &["3:14+12 a database needs `country` or `asn`, or the list would be empty"],
    ),
    (
        "database that is none",
        "kernel:\n  deny:\n    - {mmdb: rubbish.mmdb, country: [DE]}\n",
        &[
            "3:14+12 cannot use the database DIR/rubbish.mmdb: this is no MaxMind database that can be read, or a damaged one: invalid database: could not find MaxMind DB metadata in file",
        ],
    ),
    (
        "country and asn",
        "kernel:\n  deny:\n    - {mmdb: rubbish.mmdb, country: [Germany, DE], asn: [0, AS64496]}\n",
        &[
            "3:14+12 cannot use the database DIR/rubbish.mmdb: this is no MaxMind database that can be read, or a damaged one: invalid database: could not find MaxMind DB metadata in file",
            "3:38+7 Germany is not a country's ISO 3166 code of two letters",
            "3:58+1 0 is out of bounds; expected a number from 1 to 4294967295",
            "3:61+7 AS64496 is not a whole number; expected a number from 1 to 4294967295",
        ],
    ),
    (
        "unknown upstream",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {upstream: v}\n",
        &["3:17+1 there is no upstream `v`"],
    ),
    (
        "mistyped upstream",
        "upstreams:\n  users: {endpoints: [http://a]}\n  orders: {endpoints: [http://a]}\nroutes:\n  r: {upstream: user}\n",
        &["5:17+4 there is no upstream `user` -> users"],
    ),
    (
        "no upstreams",
        "routes:\n  r: {upstream: users}\n",
        &["2:17+5 there is no upstream `users`; no upstreams are declared"],
    ),
    (
        "route without upstream",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {path: /a}}\n",
        &["3:3+1 the route `r` needs `upstream`, `split`, `llm`, `redirect` or `respond`"],
    ),
    (
        "broken upstream is known",
        "upstreams:\n  u: {endpoints: [ftp]}\nroutes:\n  r: {upstream: u}\n",
        &["2:19+3 ftp does not begin with http://, https:// or unix: -> http://ftp"],
    ),
    (
        "path without slash",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {path: v1}, upstream: u}\n",
        &["3:21+2 the path v1 does not begin with a slash -> /v1"],
    ),
    (
        "path with a star",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {path: /v1/*}, upstream: u}\n",
        &["3:21+5 a `*` stands only at the end, as in /v1/** -> /v1/**"],
    ),
    (
        "path with a star inside",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {path: /v1/*/x}, upstream: u}\n",
        &["3:21+7 a `*` stands only at the end, as in /v1/**"],
    ),
    (
        "path with a query",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {path: \"/v1?a=b\"}, upstream: u}\n",
        &["3:21+9 `?` cannot stand in a path; what is no plain ASCII is percent-encoded"],
    ),
    (
        "path with a bad escape",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {path: /v1/%zz}, upstream: u}\n",
        &["3:21+7 a `%` in a path is followed by two hexadecimal digits"],
    ),
    (
        "path with dots",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {path: /v1/%2e%2E/x}, upstream: u}\n",
        &["3:21+12 a path has no `.` or `..` segments"],
    ),
    (
        "host with port",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {hosts: [\"example.com:80\"]}, upstream: u}\n",
        &["3:23+16 a route matches hosts without their port -> example.com"],
    ),
    (
        "host star",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {hosts: [\"*\"]}, upstream: u}\n",
        &["3:23+3 to match every host, leave `hosts` out"],
    ),
    (
        "host with a star inside",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {hosts: [\"a*.example.com\"]}, upstream: u}\n",
        &[
            "3:23+16 a*.example.com is not a host such as api.example.com or *.example.com; a `*` stands only for whole labels in front, as in *.example.com",
        ],
    ),
    (
        "host not ASCII",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {hosts: [bücher.example]}, upstream: u}\n",
        &["3:23+14 bücher.example is not ASCII; write its labels in Punycode (xn--…)"],
    ),
    (
        "host with a dot at its end",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {hosts: [example.com.]}, upstream: u}\n",
        &["3:23+12 a route's host has no dot at its end -> example.com"],
    ),
    (
        "host v6",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {hosts: [\"::1\"]}, upstream: u}\n",
        &["3:23+5 an IPv6 host stands in brackets -> [::1]"],
    ),
    (
        "host twice",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {hosts: [example.com, EXAMPLE.com]}, upstream: u}\n",
        &["3:36+11 this host is listed twice; the first is on line 3"],
    ),
    (
        "method in lower case",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {methods: [get]}, upstream: u}\n",
        &["3:25+3 get is not a method -> GET"],
    ),
    (
        "method mistyped",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {methods: [DELTE]}, upstream: u}\n",
        &["3:25+5 DELTE is not a method -> DELETE"],
    ),
    (
        "method twice",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {methods: [GET, GET]}, upstream: u}\n",
        &["3:30+3 this method is listed twice; the first is on line 3"],
    ),
    (
        "method CONNECT",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  r: {match: {methods: [CONNECT]}, upstream: u}\n",
        &["3:25+7 CONNECT is not forwarded: this gateway opens no tunnels"],
    ),
    (
        "same route",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  a: {match: {path: /x}, upstream: u}\n  b: {match: {path: /%78}, upstream: u}\n",
        &[
            "4:3+1 the routes `a` (line 3) and `b` take the same requests; give one of them another host, path or method",
        ],
    ),
    (
        "same route in part",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes:\n  a: {match: {hosts: [a.example, b.example], methods: [GET, PUT]}, upstream: u}\n  b: {match: {hosts: [B.example], methods: [PUT]}, upstream: u}\n",
        &[
            "4:3+1 the routes `a` (line 3) and `b` take the same requests; give one of them another host, path or method",
        ],
    ),
    (
        "missing variable",
        "drain_timeout: ${NOWHERE}\n",
        &["1:16+10 the environment has no NOWHERE; set it, or write ${NOWHERE:-default}"],
    ),
    (
        "missing variable inside",
        "kernel:\n  deny:\n    - {cidr: 10.0.0.0/8, reason: \"a-${NOWHERE}-b\"}\n",
        &["3:37+10 the environment has no NOWHERE; set it, or write ${NOWHERE:-default}"],
    ),
    (
        "reference not closed",
        "drain_timeout: \"${X\"\n",
        &["1:17+3 `${` has no closing brace; write $${ for these two characters"],
    ),
    (
        "reference malformed",
        "drain_timeout: ${X:=1s}\n",
        &[
            "1:16+8 `${X:=1s}` is not a reference; write ${NAME}, ${NAME:-default}, ${file:PATH} or ${command: PROGRAM ARGUMENTS}, and $${ for the two characters themselves",
        ],
    ),
    (
        "secret of the wrong kind",
        "drain_timeout: ${SECRET}\nkernel: {attach: \"${SECRET}\", deny: [\"${SECRET}\"]}\nworkers: ${file:secret.txt}\n",
        &[
            "1:16+9 what `${SECRET}` stands for is not a duration from 0s to 1h",
            "2:18+11 what `${SECRET}` stands for is not `auto`, `native`, `generic` or `off`",
            "2:38+11 what `${SECRET}` stands for is not an address or a prefix",
            "3:10+18 what `${file:secret.txt}` stands for is not `auto` or a number from 1 to 1024",
        ],
    ),
    (
        "secret as a name",
        "upstreams: {u: {endpoints: [http://127.0.0.1:9001]}}\nroutes: {r: {upstream: \"${SECRET}\"}}\n",
        &["2:24+11 there is no upstream `${SECRET}`"],
    ),
    (
        "secret as a file",
        "kernel:\n  deny:\n    - {file: \"${SECRET}\"}\n",
        &["3:14+11 cannot read the list ${SECRET}: No such file or directory (os error 2)"],
    ),
    (
        "secret file missing",
        "drain_timeout: ${file:missing.txt}\n",
        &["1:16+19 cannot read missing.txt: No such file or directory (os error 2)"],
    ),
    (
        "several at once",
        "workers: x\nkernel:\n  atach: off\nlisteners:\n  web: {address: 80, idle_timeout: 5}\nroutes:\n  r: {upstream: u}\n",
        &[
            "1:10+1 x is not a whole number; expected a number from 1 to 1024, or `auto`",
            "3:3+5 unknown key `atach` -> attach",
            "5:18+2 80 is not an IP address and a port, such as 0.0.0.0:8080 or [::]:8080 -> 0.0.0.0:80",
            "5:36+1 5 has no unit; add a unit, such as 5s -> 5s",
            "7:17+1 there is no upstream `u`; no upstreams are declared",
        ],
    ),
    (
        "past a wide character",
        "kernel: {deny: [{cidr: 10.0.0.0/8, reason: é, shadw: true}]}\n",
        &["1:47+5 unknown key `shadw` -> shadow"],
    ),
    ("in an alias", "kernel:\n  deny: &l [x]\n  allow: *l\n", &["2:13+1 x is not an address or a prefix"]),
    (
        "quoted, with a comment behind",
        "admin:\n  socket: \"\" # nothing\n",
        &["2:11+2 a path has 1 to 107 bytes here, this one has 0"],
    ),
    (
        "quoted, with quotes inside",
        "kernel: {attach: 'it''s'  }\n",
        &["1:18+7 expected `auto`, `native`, `generic` or `off`, found `it's`"],
    ),
    (
        "quoted, escaped",
        "kernel: {attach: \"\\\"x\\\"\" }\n",
        &["1:18+7 expected `auto`, `native`, `generic` or `off`, found `\"x\"`"],
    ),
    ("after a lone carriage return", "workers: 1\rzzzzzz: 1\n", &["2:1+6 unknown key `zzzzzz`"]),
    (
        "a body that is not asked for anything",
        "routes: {r: {respond: {}, match: {body: {}}}, s: {respond: {}, match: {path: /s, body: {fields: {}}}}}\n",
        &[
            "1:41+2 `fields` is missing; it takes a map from JSON pointers to a value, `{regex: …}` or `{present: …}`",
            "1:88+12 `body` needs at least one field to ask for",
        ],
    ),
    (
        "pointers",
        "routes: {r: {respond: {}, match: {body: {fields: {model: x, $.user.tier: gold, /a~2: y}}}}}\n",
        &[
            "1:51+5 a JSON pointer begins with a slash, such as /model or /user/tier",
            "1:61+11 a JSON pointer begins with a slash, such as /model or /user/tier -> /user/tier",
            "1:80+4 in a JSON pointer, `~` is written ~0 and a slash in a name ~1",
        ],
    ),
    (
        "a pointer that is too long",
        "routes: {r: {respond: {}, match: {body: {max_size: 17MiB, fields: {/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a: x}}}}}\n",
        &[
            "1:52+5 17MiB is out of bounds; expected a size from 1B to 16MiB",
            "1:68+34 a JSON pointer has at most 16 steps",
        ],
    ),
    (
        "media types",
        "routes: {r: {respond: {}, match: {content_types: [json], accepts: [\"*/*\", \"text/html;q=0.5\", \"text/\", \"a/b;c\"]}}}\n",
        &[
            "1:51+4 json is not a media type such as application/json",
            "1:68+5 */* is a range of media types; name one",
            "1:75+17 a quality (`q`) is the client's to say",
            "1:94+7 text/ is not a media type such as application/json",
            "1:103+7 a/b;c is not a media type such as application/json",
        ],
    ),
    (
        "routes with one body",
        "routes:\n  a: {respond: {}, match: {body: {fields: {/a: x, /b: y}}}}\n  b: {respond: {}, match: {body: {fields: {/b: y, /a: x}}}}\n",
        &[
            "3:3+1 the routes `a` (line 2) and `b` take the same requests; give one of them another host, path or method",
        ],
    ),
    (
        "an end that says nothing, or comes too early",
        "routes:\n  a: {respond: {}, match: {path: /a}, deprecated: {}}\n  b: {respond: {}, match: {path: /b}, deprecated: {since: 2027-01-01, sunset: 2026-12-31}}\n  c: {respond: {}, match: {path: /c}, deprecated: {since: 2027-01-01, sunset_link: https://a.test/}}\n",
        &[
            "2:51+2 `deprecated` needs `since`, `sunset` or both",
            "3:51+39 a route cannot be gone (`sunset`) before it is deprecated (`since`)",
            "4:51+49 `sunset_link` is about a `sunset`, and there is none",
        ],
    ),
    (
        "days and addresses",
        "routes:\n  a: {respond: {}, deprecated: {since: 2027-02-29, sunset: \"2027-02-28T24:00:00Z\", link: /changes, sunset_link: \"https://a.test/>\"}}\n  b: {respond: {}, match: {path: /b}, deprecated: {since: 27-1-1, sunset: 2027-01-01T00:00:00+01:00}}\n",
        &[
            "2:32+100 `deprecated` needs `since`, `sunset` or both",
            "2:40+10 2027-02-29 is not a day such as 2027-06-30 or a time such as 2027-06-30T22:00:00Z",
            "2:60+22 2027-02-28T24:00:00Z is not a day such as 2027-06-30 or a time such as 2027-06-30T22:00:00Z",
            "2:90+8 /changes is not a URL such as https://example.com/changes",
            "2:113+18 https://a.test/> is not a URL such as https://example.com/changes",
            "3:51+50 `deprecated` needs `since`, `sunset` or both",
            "3:59+6 27-1-1 is not a day such as 2027-06-30 or a time such as 2027-06-30T22:00:00Z",
            "3:75+25 2027-01-01T00:00:00+01:00 is not a day such as 2027-06-30 or a time such as 2027-06-30T22:00:00Z",
        ],
    ),
    (
        "traces and errors",
        "listeners: {web: {address: 127.0.0.1:80, begin_traces: yes}}\nroutes: {r: {respond: {}, request_headers: {always_errors: true}, response_headers: {always_errors: 1, set: {x: \"{request.ip}\"}}}}\n",
        &[
            "1:56+3 expected `sampled` or `unsampled`, found `yes`, or `off`",
            "2:45+13 unknown key `always_errors`",
            "2:101+1 expected `true` or `false`, found `1`",
            "2:113+14 there is no variable {request.ip} -> {request.id}",
        ],
    ),
    (
        "providers",
        "llm:\n  providers:\n    a: {dialect: openai, base_url: \"api.openai.com/v1\"}\n    b: {dialect: gemini, base_url: \"https://g.test/v1?key=x\", quirks: azure, api_version: \"2024\"}\n    c: {base_url: \"http://c.test/a/../b\", api_key: \"two words\", headers: {x-api-key: y, \"a b\": c}}\n    d: {dialect: gemini, base_url: http://d.test, tls: {}, upstream: up}\n    e: {dialect: gemini, base_url: http://e.test, quirks: vllm, api_version: x, models: [\"a*b\", \"\"]}\n",
        &[
            "3:18+6 expected `openai_chat`, `openai_responses`, `anthropic_messages` or `gemini`, found `openai` -> openai_chat",
            "3:36+19 api.openai.com/v1 does not begin with http:// or https:// -> https://api.openai.com/v1",
            "4:36+25 a base URL has no query; see `api_version` and `headers`",
            "5:5+1 `dialect` is missing; it takes `openai_chat`, `openai_responses`, `anthropic_messages` or `gemini`",
            "5:19+22 /a/../b is not the path of a URL",
            "5:52+11 this is not a key: up to 8192 printable characters without blanks, or `pass`",
            "5:89+5 a b is not the name of a header field",
            "6:70+2 `tls` is the upstream's to say where `upstream` names one",
            "6:70+2 there is no upstream `up`; no upstreams are declared",
            "7:59+4 `quirks` are of servers that speak OpenAI's dialects, not gemini",
            "7:78+1 `api_version` goes with `quirks: azure`",
            "7:90+5 a `*` stands only at the end of a model's name, as in gpt-* -> a*",
            "7:97+2  is not the name of a model, or its beginning and a star, such as gpt-*",
        ],
    ),
    (
        "what a provider is sent",
        "llm:\n  providers:\n    a: {dialect: openai_chat, base_url: \"http://a.test\", api_key: \"${SECRET} \", headers: {x-api-key: a, authorization: b, x-c: \"${SECRET}\\n\"}}\n    b: {dialect: openai_chat, base_url: \"http://b.test\", api_key: \"${command: false}\", tls: {}}\n    c: {dialect: openai_chat, base_url: \"http://c.test\", api_key: \"\"}\n",
        &[
            "3:67+12 what `${SECRET} ` stands for is not a key: up to 8192 printable characters without blanks, or `pass`",
            "3:91+9 x-api-key cannot be set here: the gateway writes it",
            "3:105+13 authorization cannot be set here: the gateway writes it",
            "3:128+13 what `${SECRET}�` stands for is not the value of a header field",
            "4:5+1 the provider `b` has `tls`, and its `base_url` is not https://",
            "4:68+17 the command false failed: exit status: 1",
            "5:67+2 the key is empty; leave `api_key` out where none is needed",
        ],
    ),
    (
        "models",
        "llm:\n  providers: {openai: {dialect: openai_chat, base_url: \"http://a.test/v1\"}}\n  models:\n    fast: {targets: [{provider: opnai, model: \"gpt-*\"}], strategy: fallbak}\n    \"a b\": {targets: [{provider: openai}]}\n    none: {targets: []}\n    bare: {}\n  aliases: {fast: none, \"x*\": none, y: nonne, z: openai/gpt}\n",
        &[
            "4:33+5 there is no provider `opnai` -> openai",
            "4:47+7 gpt-* stands for more than one model; name one",
            "4:68+7 expected `fallback`, found `fallbak` -> fallback",
            "5:5+5 a b is not the name of a model, or its beginning and a star, such as gpt-*",
            "6:5+4 the model `none` needs at least one target",
            "7:5+4 `targets` is missing; it takes a list, each entry a map with `provider` and `model`",
            "8:13+4 the model `fast` is declared on line 4, too",
            "8:25+4 an alias is one name; names with a `*` are models",
            "8:40+5 nobody serves the model `nonne` -> none",
        ],
    ),
    (
        "a route to models",
        "routes:\n  a: {llm: true}\n  b: {llm: yes, match: {path: /b}}\n  c: {llm: {lossy: never, max_body: 1GiB}, respond: {}, match: {path: /c}}\n  d: {llm: false, match: {path: /d}}\nupstreams: {up: {endpoints: [\"http://127.0.0.1:1\"]}}\n",
        &[
            "2:12+4 `llm` needs somebody who serves models; declare `llm.providers`",
            "3:3+1 the route `b` needs `upstream`, `split`, `llm`, `redirect` or `respond`",
            "3:12+3 expected `true`, `false` or a map with `lossy`, `max_body`, `body_timeout`, `timeout`, `ping`, `max_answer` and `hold`, found `yes`",
            "4:3+1 the route `c` has more than one of `upstream`, `split`, `llm`, `redirect` and `respond`",
            "4:20+5 expected `report` or `refuse`, found `never`",
            "4:37+4 1GiB is out of bounds; expected a size from 1KiB to 64MiB",
            "5:3+1 the route `d` needs `upstream`, `split`, `llm`, `redirect` or `respond`",
        ],
    ),
];
