"""A Salesforce org: records, SOQL, SOSL, upserts by external id, composite requests, OAuth."""
