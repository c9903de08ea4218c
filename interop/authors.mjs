// The authors that mail programs in JavaScript and Rust find.
//   node authors.mjs FOLDER    where their packages are installed
// Standard input has From fields, unfolded, each a JSON string in a line; for each a
// line comes back, with what each program finds: pairs of name and address.
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
const parser = (parse) => (field) => flat(parse(field));
const programs = {
    'nodemailer': parser(require('nodemailer/lib/addressparser')),
    'nodemailer 6': parser(require('nodemailer6/lib/addressparser')),
    'postal-mime': parser(require('postal-mime').addressParser),
    'postal-mime 2': parser(require('postal-mime2').addressParser),
    // As text, "name <address>".
    'mail-parser': (field) => {
        const { sender } = rust.parse_message(`From:${field}\r\n\r\n`);
        return [['', sender.slice(sender.lastIndexOf('<') + 1).replace(/>+$/, '')]];
    },
};

const result = (field) =>
    Object.fromEntries(Object.entries(programs).map(([name, find]) => [name, find(field)]));
for (const line of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    console.log(JSON.stringify(result(JSON.parse(line))));
}
