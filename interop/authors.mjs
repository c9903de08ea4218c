// The authors that mail programs in JavaScript and Rust find.
//   node authors.mjs FOLDER    where their packages are installed
// Standard input has headers of messages, each a JSON string in a line.  For each a
// line comes back with what each program finds: pairs of name and address.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'package.json'));

const rust = await import(require.resolve('mail-parser-wasm/mail_parser_wasm_bg.js'));
const code = readFileSync(require.resolve('mail-parser-wasm/mail_parser_wasm_bg.wasm'));
const module = new WebAssembly.Module(code);
const instance = new WebAssembly.Instance(module, { './mail_parser_wasm_bg.js': rust });
rust.__wbg_set_wasm(instance.exports);
instance.exports.__wbindgen_start();

const flat = (found) =>
    found.flatMap((each) => (each.group ? flat(each.group) : [[each.name || '', each.address || '']]));
const inRust = (message) => {
    // As text, "name <address>".
    const { sender } = rust.parse_message(message);
    return [['', sender.slice(sender.lastIndexOf('<') + 1).replace(/>+$/, '')]];
};
const postalMime = [require('postal-mime'), require('postal-mime2')];
const { simpleParser } = require('mailparser');

const first = async (program, header) => flat([(await program.default.parse(header)).from ?? {}]);
// The parsers of fields, for headers that are nothing but one.
const FIELD = /^From:((?:(?!\r\n[^ \t]).)*)\r\n\r\n$/s;
const parsers = {
    'nodemailer': require('nodemailer/lib/addressparser'),
    'nodemailer 6': require('nodemailer6/lib/addressparser'),
    'postal-mime fields': postalMime[0].addressParser,
    'postal-mime 2 fields': postalMime[1].addressParser,
};

for (const line of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    const header = JSON.parse(line);
    const found = {
        'mailparser': flat((await simpleParser(Buffer.from(header))).from?.value ?? []),
        'postal-mime': await first(postalMime[0], header),
        'postal-mime 2': await first(postalMime[1], header),
        'mail-parser': inRust(header),
    };
    const field = FIELD.exec(header);
    for (const [name, parse] of field ? Object.entries(parsers) : []) {
        found[name] = flat(parse(field[1].replaceAll('\r\n', '')));
    }
    console.log(JSON.stringify(found));
}
