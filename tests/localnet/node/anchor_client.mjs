// Uses @coral-xyz/anchor and @solana/web3.js as an application would, and prints what they saw as JSON.
// usage: node anchor_client.mjs RPC_URL IDL_FILE     (run where node_modules has @coral-xyz/anchor)
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.cwd() + "/");
const anchor = require("@coral-xyz/anchor");
const { BN, web3 } = anchor;
const [rpcUrl, idlFile] = process.argv.slice(2);

const connection = new web3.Connection(rpcUrl, "confirmed");
const payer = web3.Keypair.generate();
const provider = new anchor.AnchorProvider(connection, new anchor.Wallet(payer), { commitment: "confirmed" });
const program = new anchor.Program(JSON.parse(readFileSync(idlFile)), provider);
const seen = {};

const airdrop = await connection.requestAirdrop(payer.publicKey, 10 * web3.LAMPORTS_PER_SOL);
await connection.confirmTransaction({ signature: airdrop, ...(await connection.getLatestBlockhash()) });
seen.balance = await connection.getBalance(payer.publicKey);

const name = [...Buffer.alloc(32, "anchor")];
const terms = {
  feeFloorLamports: new BN(5000), minDeadlineSlots: new BN(5), maxDeadlineSlots: new BN(1000), leaseSlots: 10,
  retentionSlots: 10, maxBodyLen: 4096, maxOutputCap: 256, claimRequired: false,
};
const event = new Promise((resolve) => {
  const listener = program.addEventListener("queueCreated", (told, slot, signature) =>
    program.removeEventListener(listener).then(() => resolve({ queue: told.queue.toBase58(), slot, signature })));
});
const accounts = { authority: payer.publicKey };
const { queue } = await program.methods.createQueue(name, terms).accounts(accounts).pubkeys();
const changed = new Promise((resolve) => {
  const listener = connection.onProgramAccountChange(program.programId, (told, context) =>
    connection.removeProgramAccountChangeListener(listener)
      .then(() => resolve({ account: told.accountId.toBase58(), slot: context.slot })), { commitment: "confirmed" });
});
// web3.js does not tell when a subscription is in force, though it knows.
const inForce = () => Object.values(connection._subscriptionsByHash).filter((one) => one.state === "subscribed").length;
while (inForce() < 2) await new Promise((resolve) => setTimeout(resolve, 20));
seen.simulatedUnits = (await program.methods.createQueue(name, terms).accounts(accounts).simulate()).raw.length > 0;
seen.signature = await program.methods.createQueue(name, terms).accounts(accounts).rpc();
seen.queue = queue.toBase58();
seen.event = await event;
seen.changed = await changed;
const fetched = await program.account.queue.fetch(queue);
seen.fetched = { authority: fetched.authority.equals(payer.publicKey), floor: fetched.terms.feeFloorLamports.toNumber() };
const filter = { memcmp: { offset: 10, bytes: payer.publicKey.toBase58() } };
seen.found = (await program.account.queue.all([filter])).map((one) => one.publicKey.toBase58());
const record = await connection.getTransaction(seen.signature, { maxSupportedTransactionVersion: 0 });
seen.fee = record.meta.fee;
const parsed = await connection.getParsedTransaction(seen.signature, { maxSupportedTransactionVersion: 0 });
seen.signers = parsed.transaction.message.accountKeys.filter((key) => key.signer).length;
try {
  await program.methods.createQueue(name, { ...terms, minDeadlineSlots: new BN(2000) })
    .accounts(accounts).rpc();
} catch (error) {
  seen.refused = { name: error.constructor.name, logs: error.logs?.length > 0 };
}
console.log(JSON.stringify(seen));
process.exit(0);
