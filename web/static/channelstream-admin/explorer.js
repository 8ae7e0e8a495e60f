// The API explorer: shows openapi.json for reading, with a curl line for each operation. It sends nothing itself.
import { el, setText, signInAgain } from './dom.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];
const byId = (id) => document.getElementById(id);
const json = (value) => JSON.stringify(value, null, 2);
const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
let api;

/** The schema with references followed and `allOf` merged; `link` is the name of an object shown on its own. */
function resolved(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split('/').pop();
    const target = resolved(api.components.schemas[name]);
    return target.properties || target.oneOf ? { ...target, link: name } : target;
  }
  if (!schema.allOf) return schema;
  const { allOf, ...own } = schema;
  const parts = allOf.map(resolved);
  const merged = Object.assign({}, ...parts, own);
  if (parts.length > 1) {
    delete merged.link;
    merged.properties = Object.assign({}, ...parts.map((part) => part.properties));
    merged.required = parts.flatMap((part) => part.required ?? []);
  }
  return merged;
}

const target = (object) => (object.$ref ? object.$ref.split('/').slice(1).reduce((at, key) => at[key], api) : object);

/** The type in words, as nodes, since it may hold links. */
function type(schema) {
  const one = resolved(schema);
  const orNull = one.nullable ? [' or null'] : [];
  if (one.link) {
    const link = el('a', '', one.link);
    link.href = `#${one.link}`;
    return [link, ...orNull];
  }
  const choice = one.oneOf ?? one.anyOf;
  if (choice) return [...choice.flatMap((part, i) => [i ? (i < choice.length - 1 ? ', ' : ' or ') : '', ...type(part)]), ...orNull];
  if (one.type === 'array') return ['list of ', ...type(one.items), resolved(one.items).link ? '' : 's', ...orNull];
  if (one.type === 'object' && one.additionalProperties instanceof Object) return ['map of ', ...type(one.additionalProperties), ...orNull];
  if (one.enum) return [one.enum.map((value) => JSON.stringify(value)).join(' or '), ...orNull];
  return [one.format === 'uuid' ? 'UUID' : one.type ?? 'any', ...orNull];
}

function limits(schema) {
  const one = resolved(schema);
  const found = [range(one.minLength, one.maxLength, ' characters'), range(one.minItems, one.maxItems, ' entries'), range(one.minimum, one.maximum, '')];
  if (one.items) found.push(limits(one.items) && `each ${limits(one.items)}`);
  return found.filter(Boolean).join(', ');
}

function range(least, most, unit) {
  if (least === undefined && most === undefined) return '';
  if (most === undefined) return `at least ${least}${unit}`;
  return least === undefined ? `at most ${most}${unit}` : `${least} to ${most}${unit}`;
}

/** Text with paragraphs and `code`. */
function prose(text = '') {
  return text.split('\n\n').filter(Boolean).map((paragraph) => el('p', '', ...paragraph.split('`').map((part, i) => (i % 2 ? el('code', '', part) : part))));
}

function fields(rows) {
  const heads = ['Field', 'Type', 'Default', 'Limits', 'Meaning'];
  const body = rows.map(([name, schema, required, description]) => {
    const { default: preset, description: own } = resolved(schema);
    const cells = [
      [el('code', '', name), required ? el('b', 'required', 'required') : ''], type(schema), [preset === undefined ? '' : el('code', '', JSON.stringify(preset))],
      [limits(schema)], prose(description ?? own),
    ].map((content, i) => {
      const cell = el('td', '', ...content);
      cell.dataset.label = heads[i];
      return cell;
    });
    return el('tr', '', ...cells);
  });
  return el('table', 'fields', el('thead', '', el('tr', '', ...heads.map((head) => el('th', '', head)))), el('tbody', '', ...body));
}

function properties(schema) {
  const { properties: all = {}, required = [] } = resolved(schema);
  return Object.entries(all).map(([name, field]) => [name, field, required.includes(name)]);
}

/** The object inside lists and maps whose fields are worth a table. */
function core(schema) {
  const one = resolved(schema);
  const inner = one.items ?? (one.additionalProperties instanceof Object ? one.additionalProperties : null);
  return inner && !one.properties ? core(inner) : one;
}

function code(text) {
  const pre = el('pre', '', text);
  pre.tabIndex = 0;
  return pre;
}

function curl(path, method, operation, media, body) {
  const url = new URL(api.servers[0].url, location.href).href.replace(/\/$/, '') + path;
  const query = (operation.parameters ?? []).map(target).filter((parameter) => parameter.required)
    .map((parameter) => `${parameter.name}=${encodeURIComponent(parameter.example)}`).join('&');
  const address = query ? `${url}?${query}` : url;
  if (operation.responses['101']) return ['JavaScript', `new WebSocket(${JSON.stringify(address.replace(/^http/, 'ws'))})`];
  const parts = [method === 'get' ? `curl ${shellQuoted(address)}` : `curl -X ${method.toUpperCase()} ${shellQuoted(address)}`];
  const scheme = Object.keys(operation.security?.[0] ?? {})[0];
  if (scheme) parts.push(`-H "${api.components.securitySchemes[scheme].name}: $(channelstream sign)"`);
  if (media === 'application/json') parts.push(`-H 'Content-Type: ${media}'`, `-d ${shellQuoted(JSON.stringify(body))}`);
  else if (media) parts.push(...Object.entries(body).map(([name, value]) => `--data-urlencode ${shellQuoted(`${name}=${value}`)}`));
  return ['curl', parts.join(' \\\n  ')];
}

function copyButton(text) {
  if (!navigator.clipboard) return null; // plain http
  const button = el('button', 'copy', 'Copy');
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text);
    setText(button, 'Copied');
    setTimeout(() => setText(button, 'Copy'), 1500);
  });
  return button;
}

function answer(status, response) {
  const contents = Object.entries(response.content ?? {}).flatMap(([media, { schema, example }]) => [
    el('p', 'quiet', `${media}: `, ...type(schema)),
    example === undefined ? null : code(typeof example === 'string' ? example : json(example)),
  ]).filter(Boolean);
  const headers = Object.keys(response.headers ?? {});
  if (headers.length) contents.unshift(el('p', 'quiet', `Headers: ${headers.join(', ')}`));
  const title = [el('b', `status s${status[0]}`, status), el('span', '', response.description.replaceAll('`', ''))];
  if (!contents.length) return el('div', 'answer', ...title);
  const box = el('details', 'answer', el('summary', '', ...title), ...contents);
  box.open = status[0] === '2';
  return box;
}

function operationBox(path, method, operation) {
  const [media, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const parameters = (operation.parameters ?? []).map(target);
  const [language, line] = curl(path, method, operation, media, body?.example);
  const rows = body ? properties(core(body.schema)) : [];
  const box = el('details', 'operation card',
    el('summary', '', el('b', `method ${method}`, method), el('code', 'path', path), el('span', 'quiet', operation.summary)),
    ...prose(operation.description),
    el('p', 'quiet', operation.security ? `Needs ${operation.security.map((one) => Object.keys(one)[0]).join(' or ')}.` : 'Needs no signature.'),
    ...(parameters.length ? [el('h4', '', 'Query'), fields(parameters.map((one) => [one.name, one.schema, one.required, one.description]))] : []),
    ...(body ? [el('h4', '', 'Body'), el('p', 'quiet', `${media}${operation.requestBody.required ? '' : ', may be left out'}: `, ...type(body.schema))] : []),
    rows.length ? fields(rows) : null,
    ...(body ? [el('h4', '', 'Example'), code(json(body.example))] : []),
    el('h4', '', language, copyButton(line)), code(line),
    el('h4', '', 'Answers'), ...Object.entries(operation.responses).map(([status, response]) => answer(status, target(response))));
  box.id = operation.operationId;
  box.dataset.words = `${method} ${path} ${operation.summary} ${operation.description ?? ''}`.toLowerCase();
  return box;
}

function schemaBox(name) {
  const schema = resolved(api.components.schemas[name]);
  const inside = schema.oneOf ? [el('p', '', ...type({ oneOf: schema.oneOf }))] : [fields(properties(schema))];
  const box = el('details', 'operation card', el('summary', '', el('code', 'path', name), el('span', 'quiet', schema.description ?? '')), ...inside);
  box.id = name;
  box.dataset.words = `${name} ${Object.keys(schema.properties ?? {}).join(' ')}`.toLowerCase();
  return box;
}

const group = (title, description, boxes) => el('section', '', el('h2', '', title), el('p', 'quiet', description), ...boxes);

function show() {
  const schemes = Object.entries(api.components.securitySchemes)
    .map(([name, { in: place, name: key, description }]) => [el('dt', '', name), el('dd', '', el('p', 'quiet', `${place} `, el('code', '', key)), ...prose(description))]);
  byId('intro').append(el('h2', '', `${api.info.title} ${api.info.version}`), ...prose(api.info.description), el('dl', 'schemes', ...schemes.flat()));
  const all = Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => [path, method, item[method]]));
  const groups = api.tags.map(({ name, description }) =>
    group(name, description, all.filter(([, , operation]) => operation.tags[0] === name).map((one) => operationBox(...one))));
  const objects = Object.keys(api.components.schemas).filter((name) => resolved({ $ref: `#/components/schemas/${name}` }).link);
  byId('operations').append(...groups, group('Objects', 'What requests, answers and events are made of.', objects.map(schemaBox)));
}

function filter() {
  const part = byId('filter').value.toLowerCase();
  for (const section of byId('operations').children) {
    const boxes = [...section.querySelectorAll('.operation')];
    for (const box of boxes) box.hidden = !box.dataset.words.includes(part);
    section.hidden = boxes.every((box) => box.hidden);
  }
}

function toggle() {
  const open = byId('toggle').textContent === 'Open all';
  for (const box of document.querySelectorAll('.operation')) box.open = open;
  setText(byId('toggle'), open ? 'Close all' : 'Open all');
}

/** Opens what the address or a link points at, also where the filter hid it. */
function openTarget() {
  const box = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!box?.matches('.operation')) return;
  if (box.hidden) {
    byId('filter').value = '';
    filter();
  }
  box.open = true;
  box.scrollIntoView();
  box.querySelector('summary').focus({ preventScroll: true });
}

async function start() {
  const answer = await fetch('openapi.json', { redirect: 'manual' });
  if (answer.status === 403 || answer.type === 'opaqueredirect') return signInAgain(byId('status'));
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  api = await answer.json();
  show();
  byId('filter').addEventListener('input', filter);
  byId('toggle').addEventListener('click', toggle);
  addEventListener('hashchange', openTarget);
  openTarget();
}

start().catch((error) => setText(byId('status'), `The API document cannot be shown: ${error.message}.`));
