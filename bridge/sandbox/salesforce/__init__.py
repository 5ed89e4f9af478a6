"""Mock Salesforce org: records, SOQL, SOSL, upserts by external ID, composite requests, OAuth."""
