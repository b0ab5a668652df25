// What npm's gcp-metadata reads, a line of JSON each. Arguments: its module, then properties of the instance,
// with their query: "maintenance-event?wait_for_change=true". An error is its status.
import { pathToFileURL } from 'node:url';

const [module, ...asked] = process.argv.slice(2);
const { default: gcp } = await import(pathToFileURL(module));
console.log(JSON.stringify(await gcp.isAvailable()));
for (const one of asked) {
  const [property, query] = one.split('?');
  try {
    const found = await gcp.instance({ property, params: Object.fromEntries(new URLSearchParams(query)) });
    console.log(JSON.stringify(found));
  } catch (error) {
    console.log(JSON.stringify(error.status ?? String(error)));
  }
}
