// A server on Node's standard library: what `real_servers.rs` asks of one. Listens on the path or port that it is given;
// under TLS, if a certificate and a key follow.

const fs = require('fs');
const [where, cert, key] = process.argv.slice(2);

let waiting = [];
let allowed = 0;
const turn = () => new Promise(resolve => (allowed > 0 ? (allowed--, resolve()) : waiting.push(resolve)));

async function serve(request, response) {
  switch (request.url) {
    case '/length':
      response.setHeader('Content-Length', 6);
      return response.end('length');
    case '/chunks':
      response.setHeader('Trailer', 'X-Sum');
      response.write('one ');
      response.write('two');
      response.addTrailers({ 'X-Sum': '7' });
      return response.end();
    case '/hints':
      response.writeEarlyHints({ link: '</a.css>; rel=preload; as=style' });
      return response.end('hinted');
    case '/events':
      response.setHeader('Content-Type', 'text/event-stream');
      for (let number = 0; number < 5; number++) {
        response.write(`data: ${number}\n\n`);
        // The next one only when the client has seen this one, and says so.
        await turn();
      }
      return response.end();
    case '/go':
      waiting.length > 0 ? waiting.shift()() : allowed++;
      return response.end('gone on');
    case '/echo':
      // As it comes: the answer begins before the request has ended.
      return request.pipe(response);
    default:
      response.statusCode = 404;
      return response.end();
  }
}

const server = cert
  ? require('https').createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, serve)
  : require('http').createServer(serve);
server.listen(where.startsWith('/') ? where : Number(where));
